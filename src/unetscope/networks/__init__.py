"""The paper's U-Net; the skips and levels of any network, found and taken out; what a network costs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
