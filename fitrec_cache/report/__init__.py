"""The report: one HTML file about trained runs that opens anywhere, without network."""

from fitrec_cache.report.build import PageReport, report

__all__ = ["PageReport", "report"]
