"""The page that people open, keep and send: one self-contained HTML file. Imports errors and files only."""

from unetscope.report.page import ReportFigure, write_report

__all__ = ["ReportFigure", "write_report"]
