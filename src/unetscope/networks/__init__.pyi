from .ablation import ablated as ablated
from .ablation import without_skips as without_skips
from .saved import load_model as load_model
from .saved import save_model as save_model
from .skip_detection import Structure as Structure
from .skip_detection import inspect as inspect
from .unet import UNet as UNet
