# Thirty-one names at most: what a first script needs. All else is a name of its package: us.data, us.estimators, us.plots.
from . import analysis as analysis  # comparisons of layers
from . import data as data  # NIfTI, nnU-Net folders, checks, the public images
from . import estimators as estimators  # further estimators
from . import networks as networks  # ablate skips, a network's structure and cost
from . import plots as plots  # figures
from . import runs as runs  # run folders and trackers
from . import table as table  # the records that tables hold
from .analysis import judge as judge  # verdicts of a table
from .base import UnetscopeError as UnetscopeError  # what a user can mend
from .data import SegmentationData as SegmentationData  # what every loader returns
from .data import from_dataset as from_dataset  # any PyTorch dataset
from .data import load as load  # images and masks of a folder or archive
from .data import synthetic_nuclei as synthetic_nuclei  # data to try it with
from .estimators import KDE as KDE  # the paper's first estimator
from .estimators import Binning as Binning  # the paper's second estimator
from .estimators import KMeansLabels as KMeansLabels  # the paper's labels
from .measure import Scope as Scope  # measures a network
from .networks import UNet as UNet  # the paper's network
from .networks import inspect as inspect  # layers, merges and skips of any network
from .networks import load_model as load_model  # what slim wrote
from .networks import without as without  # a network without parts, to train
from .networks import without_skips as without_skips  # a network without a skip, to train
from .runs import Recorder as Recorder  # in a loop of one's own
from .runs import RunFolder as RunFolder  # reads what a run wrote
from .runs import UnetscopeCallback as UnetscopeCallback  # Lightning
from .runs import UnetscopeHandler as UnetscopeHandler  # MONAI, Ignite
from .runs import slim as slim  # the smaller network
from .runs import verify as verify  # retrains variants
from .table import Flow as Flow  # the table of estimates
from .training import Trainer as Trainer  # the paper's training
from .training import TrainingConfig as TrainingConfig  # its configuration

__version__: str
