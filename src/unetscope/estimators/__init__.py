"""Statistics in, nats out. Each estimator is a small frozen description and the pure functions that it stands for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
