"""How many packets a second the PyPI package stanag4609 decodes: reads one packet from standard input, prints its version,
the rate, and what it found for item 5. CPU time of this process only."""

import sys
import time

import stanag4609
from stanag4609.st0601 import decode_uas_local_set

packet = sys.stdin.buffer.read()
seconds = float(sys.argv[1])
decoded = decode_uas_local_set(packet)
count, start = 0, time.process_time()
while time.process_time() - start < seconds:
    for _ in range(100):
        decode_uas_local_set(packet)
    count += 100
rate = count / (time.process_time() - start)
try:
    from importlib.metadata import version

    version = version("stanag4609")
except Exception:
    version = "?"
print(version, rate, repr(decoded.value(5)))
