"""Models side by side: size, memory, speed, and how well they predict a text. Quantization is no free lunch.

Each model is measured in a process of its own, so that what one leaves in memory is not counted as another's.
"""

from local_llms.comparison.measurement import Measurement, Task, default_text, default_window
from local_llms.comparison.process import measure_apart

__all__ = ["Measurement", "Task", "default_text", "default_window", "measure_apart"]
