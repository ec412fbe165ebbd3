"""A report on trackers: one HTML file to be looked at, with the same as JSON and Markdown."""

from duotrack.evaluation.report.failures import FailurePicture, Shot, failure_pictures
from duotrack.evaluation.report.inputs import ReportInputs, report_record
from duotrack.evaluation.report.markdown import markdown_report, markdown_table
from duotrack.evaluation.report.page import page, require_page, write_report

__all__ = [
    "FailurePicture",
    "ReportInputs",
    "Shot",
    "failure_pictures",
    "markdown_report",
    "markdown_table",
    "page",
    "report_record",
    "require_page",
    "write_report",
]
