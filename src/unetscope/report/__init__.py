"""The page that people open, keep and send: one HTML file that needs no network, or served while it changes."""

from unetscope.report.page import ReportFigure, page, write_report
from unetscope.report.server import Server

__all__ = ["ReportFigure", "Server", "page", "write_report"]
