"""The report: result lines in; the paper's table, its statistics and one self-contained HTML page out."""

from bancache.report.page import write_report
from bancache.report.rendering import to_markdown, to_rows, to_text
from bancache.report.tables import Table, generations_table

__all__ = ["Table", "generations_table", "to_markdown", "to_rows", "to_text", "write_report"]
