"""Records, the table of estimates and its series, intervals, parts and variants, schedules: plain values, without torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
