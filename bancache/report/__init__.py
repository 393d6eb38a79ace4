"""The report: result lines in; the paper's table, its statistics and one self-contained HTML page out."""

from bancache.report.arms import ArmTable, arm_rows
from bancache.report.folders import read_results
from bancache.report.page import write_report
from bancache.report.rendering import arms_to_markdown, arms_to_text, to_markdown, to_rows, to_text
from bancache.report.tables import Table, generations_table

__all__ = [
    "ArmTable",
    "Table",
    "arm_rows",
    "arms_to_markdown",
    "arms_to_text",
    "generations_table",
    "read_results",
    "to_markdown",
    "to_rows",
    "to_text",
    "write_report",
]
