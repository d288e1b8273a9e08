#!/usr/bin/python3
"""GStreamer's rtspsrc as a reader: rtsp_reader.py URL tcp|udp H264 AAC

Writes the pictures and the sound that it reads as elementary streams into two files. Links each pad when it appears:
gst-launch loses one of two that appear at once, each in a thread of its own ("Delayed linking failed"). Prints `up` when it begins."""
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

Gst.init(None)
url, protocols, pictures, sound = sys.argv[1:]
pipeline = Gst.parse_launch(
    f"rtspsrc name=source location={url} protocols={protocols} latency=200 "
    "rtph264depay name=video ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au ! "
    f"filesink async=false location={pictures} "
    "rtpmp4gdepay name=audio ! aacparse ! audio/mpeg,stream-format=adts ! "
    f"filesink async=false location={sound}"
)


def link(_, pad):
    caps = pad.get_current_caps() or pad.query_caps(None)
    media = pipeline.get_by_name(caps.get_structure(0).get_string("media"))
    if media:
        pad.link(media.get_static_pad("sink"))


pipeline.get_by_name("source").connect("pad-added", link)
pipeline.set_state(Gst.State.PLAYING)
print("up", flush=True)
GLib.MainLoop().run()
