from .errors import UnetscopeError as UnetscopeError
