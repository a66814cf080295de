from .scope import Compute as Compute
from .scope import Probes as Probes
from .scope import Scope as Scope
