#!/usr/bin/python3
"""gst-rtsp-server as a peer: rtsp_server.py PORT CLIP FOLDER [digest]

/av plays the clip's pictures and sound, /klv pictures and KLV units (small ones and one over the MTU in five), /mp2t the
clip as a transport stream, /group pictures to a multicast group; /rec records pictures and sound into the folder.
With `digest`, user:pa:ss must be proven. Prints `up` when it listens."""
import struct
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

Gst.init(None)
port, clip, folder, *rest = sys.argv[1:]
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
mounts = server.get_mount_points()


def feed_klv(source):
    count = 0

    def push():
        nonlocal count
        body = struct.pack(">I", count) + bytes([count & 0xFF]) * (4000 if count % 5 == 0 else 40)
        length = bytes([len(body)]) if len(body) < 128 else b"\x82" + struct.pack(">H", len(body))
        unit = bytes.fromhex("060E2B34020B01010E01030101000000") + length + body
        count += 1
        return source.emit("push-buffer", Gst.Buffer.new_wrapped(unit)) == Gst.FlowReturn.OK

    GLib.timeout_add(100, push)


class Factory(GstRtspServer.RTSPMediaFactory):
    def __init__(self, launch):
        super().__init__()
        self.set_shared(True)
        self.set_launch(launch)
        self.connect("media-configure", self.configure)

    def configure(self, _, media):
        source = media.get_element().get_by_name("klvsrc")
        if source:
            feed_klv(source)


def add(path, launch, record=False, group=False):
    factory = Factory(f"( {launch} )")
    if rest:
        permissions = GstRtspServer.RTSPPermissions()
        for what in ("access", "construct"):
            permissions.add_permission_for_role("user", f"media.factory.{what}", True)
        factory.set_permissions(permissions)
    if record:
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    if group:
        pool = GstRtspServer.RTSPAddressPool()
        pool.add_range("239.255.12.1", "239.255.12.10", 26000, 26100, 1)
        factory.set_address_pool(pool)
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP_MCAST)
    mounts.add_factory(path, factory)


source = f"filesrc location={clip} ! tsdemux name=d"
picture = "h264parse ! rtph264pay pt=96 config-interval=-1"
add(
    "/av",
    f"{source} d. ! queue ! {picture} name=pay0  d. ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97",
)
klv = 'appsrc name=klvsrc is-live=true do-timestamp=true format=time caps="meta/x-klv,parsed=true" ! rtpklvpay name=pay1 pt=98'
add("/klv", f"{source} d. ! queue ! {picture} name=pay0 {klv}")
add("/mp2t", f"filesrc location={clip} ! tsparse set-timestamps=true ! rtpmp2tpay name=pay0 pt=33")
add("/group", f"{source} d. ! queue ! {picture} name=pay0", group=True)
add(
    "/rec",
    "rtph264depay name=depay0 ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au"
    f" ! filesink async=false location={folder}/rec.h264"
    " rtpmp4gdepay name=depay1 ! aacparse ! audio/mpeg,stream-format=adts"
    f" ! filesink async=false location={folder}/rec.aac",
    record=True,
)
if rest:
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_digest("user", "pa:ss", token)
    server.set_auth(auth)
server.attach(None)
print("up", flush=True)
GLib.timeout_add_seconds(2, lambda: server.get_session_pool().cleanup() or True)
GLib.MainLoop().run()
