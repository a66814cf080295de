from .layer_statistics import layer_statistics as layer_statistics
from .layer_statistics import readings_of as readings_of
from .probe_limits import probe_limits as probe_limits
from .scope import Compute as Compute
from .scope import Probes as Probes
from .scope import Scope as Scope
from .selfcheck import run_selfcheck as run_selfcheck
