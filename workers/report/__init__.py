"""The quality report of a run: one HTML file for people, built from the published Parquet and nothing else."""

from workers.report.page import build_report, write_report

__all__ = ["build_report", "write_report"]
