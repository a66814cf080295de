from .ablation import ablated as ablated
from .inspection import inspect as inspect
from .removal import without_skips as without_skips
from .saved import load_model as load_model
from .saved import save_model as save_model
from .structure import Structure as Structure
from .unet import UNet as UNet
