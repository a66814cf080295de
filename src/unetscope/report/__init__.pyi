from .page import ReportFigure as ReportFigure
from .page import page as page
from .page import write_report as write_report
from .render import compare as compare
from .render import render_run as render_run
from .server import Server as Server
from .server import server as server
