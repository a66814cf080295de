"""Images and masks: load, check and split them, at one size.

`load`, `check` and `synthetic_nuclei` are the first names to know.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
