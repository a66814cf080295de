"""The paper's U-Net; detect, ablate and remove the skips of any network; what a network costs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
