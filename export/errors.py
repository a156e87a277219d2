"""What exporting refuses with."""


class ExportError(ValueError):
    """An export is missing, damaged, wrong, or made for something else."""
