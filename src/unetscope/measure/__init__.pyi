from .scope import Scope as Scope
