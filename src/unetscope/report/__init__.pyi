from .page import is_page as is_page
from .render import compare as compare
from .render import render_run as render_run
from .sentences import UNLEARNT as UNLEARNT
from .server import opening as opening
from .server import server as server
