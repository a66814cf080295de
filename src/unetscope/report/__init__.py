"""The report of runs: figures and one HTML file that needs no network, or the same page served while runs change."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
