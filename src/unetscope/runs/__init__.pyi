from .folder import RunFolder as RunFolder
from .integrations.lightning import UnetscopeCallback as UnetscopeCallback
from .integrations.monai import UnetscopeHandler as UnetscopeHandler
from .recorder import Recorder as Recorder
from .slimming import Slim as Slim
from .slimming import slim as slim
from .trackers import track as track
from .verification import verify as verify
