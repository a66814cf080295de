from .data_processing import dpi_violations as dpi_violations
from .outcomes import Verification as Verification
from .rank_stability import layer_rank_stability as layer_rank_stability
from .verdict import Judgement as Judgement
from .verdict import judge as judge
