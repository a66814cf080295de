from .flow import Flow as Flow
from .intervals import Interval as Interval
from .intervals import difference as difference
from .records import EpochRecord as EpochRecord
from .records import Estimate as Estimate
from .records import Layer as Layer
from .records import Skip as Skip
from .records import Verdict as Verdict
