from .config import TrainingConfig as TrainingConfig
from .trainer import Trainer as Trainer
