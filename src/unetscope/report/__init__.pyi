from .render import compare as compare
from .render import render_run as render_run
from .server import server as server
