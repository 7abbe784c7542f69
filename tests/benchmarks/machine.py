"What a figure was measured on."

import os
import platform
from pathlib import Path


def processor():
    "The processor's name and its cores."
    info = Path('/proc/cpuinfo')
    names = (
        [line.split(':')[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
