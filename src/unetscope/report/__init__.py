"""The page that people open, keep and send: one HTML file that needs no network, or served while it changes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
