# Thirty names at most: what a first script needs. All else is a name of its package: us.data, us.estimators, us.plots, …
from . import analysis as analysis  # comparisons of layers
from . import data as data  # NIfTI, nnU-Net folders, checks, the public images
from . import estimators as estimators  # further estimators
from . import networks as networks
from . import plots as plots
from . import runs as runs
from . import table as table  # the records that tables hold
from .analysis import judge as judge
from .base import UnetscopeError as UnetscopeError  # what a user can mend
from .data import SegmentationData as SegmentationData
from .data import from_dataset as from_dataset
from .data import load as load
from .data import synthetic_nuclei as synthetic_nuclei
from .estimators import KDE as KDE
from .estimators import Binning as Binning
from .estimators import KMeansLabels as KMeansLabels
from .measure import Scope as Scope
from .networks import UNet as UNet
from .networks import inspect as inspect  # layers, merges and skips of any network
from .networks import load_model as load_model  # what slim wrote
from .networks import without_skips as without_skips  # a network without a skip, to train
from .runs import Recorder as Recorder  # in a loop of one's own
from .runs import RunFolder as RunFolder
from .runs import UnetscopeCallback as UnetscopeCallback  # Lightning
from .runs import UnetscopeHandler as UnetscopeHandler  # MONAI, Ignite
from .runs import slim as slim
from .runs import verify as verify
from .table import Flow as Flow
from .training import Trainer as Trainer
from .training import TrainingConfig as TrainingConfig

__version__: str
