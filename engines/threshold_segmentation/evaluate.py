"""Score the engine against expert contours, study by study: as every engine that finds lesions is scored."""

from engines.evaluation import Score, evaluate

__all__ = ["Score", "evaluate"]
