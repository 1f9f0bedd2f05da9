"""The messages of AlpaSim's traffic service, made without a compiler from the names and numbers on its wire.

Names and field numbers are those of alpasim_grpc/v0/common.proto and traffic.proto (NVlabs/alpasim). They live in a
pool of their own, so that AlpaSim's own classes may be loaded beside them.
"""

from typing import Any

from traj_diffusion.errors import MissingExtra

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    raise MissingExtra("protobuf", "serve") from None

SERVICE = "traffic.TrafficService"
# method -> its request and its answer
METHODS = {
    "start_session": ("traffic.TrafficSessionRequest", "common.SessionRequestStatus"),
    "close_session": ("traffic.TrafficSessionCloseRequest", "common.Empty"),
    "simulate": ("traffic.TrafficRequest", "traffic.TrafficReturn"),
    "get_metadata": ("common.Empty", "traffic.TrafficModuleMetadata"),
    "get_available_scenes": ("common.Empty", "common.AvailableScenesReturn"),
}
# message -> its fields as "type name number"; * marks a repeated one
_COMMON = {
    "Empty": "",
    "Quat": "float w 1, float x 2, float y 3, float z 4",
    "Vec3": "float x 1, float y 2, float z 3",
    "Pose": ".common.Vec3 vec 1, .common.Quat quat 2",
    "AABB": "float size_x 1, float size_y 2, float size_z 3",
    "PoseAtTime": ".common.Pose pose 1, fixed64 timestamp_us 2",
    "Trajectory": ".common.PoseAtTime *poses 1",
    "APIVersion": "uint32 major 1, uint32 minor 2, uint32 patch 3",
    "VersionId": "string version_id 1, string git_hash 2, .common.APIVersion grpc_api_version 3",
    "SessionRequestStatus": "",
    "AvailableScenesReturn": "string *scene_ids 1",
}
_TRAFFIC = {
    "ObjectTrajectory": ".common.AABB aabb 1, .common.Trajectory trajectory 2, string object_id 3, bool is_static 4, "
    "string label_class 5",
    "ObjectTrajectoryUpdate": "string object_id 1, .common.Trajectory trajectory 2",
    "TrafficSessionRequest": "string session_uuid 1, string scene_id 2, fixed64 random_seed 3, "
    ".traffic.ObjectTrajectory *logged_object_trajectories 4, fixed64 handover_time_us 5",
    "TrafficSessionCloseRequest": "string session_uuid 1",
    "TrafficRequest": "string session_uuid 1, fixed64 time_query_us 2, "
    ".traffic.ObjectTrajectoryUpdate *object_trajectory_updates 3",
    "TrafficReturn": ".traffic.ObjectTrajectoryUpdate *object_trajectory_updates 1",
    "TrafficModuleMetadata": ".common.VersionId version_id 1, fixed64 minimum_history_length_us 2",
}


def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    field = descriptor_pb2.FieldDescriptorProto
    for package, messages, needs in (("common", _COMMON, []), ("traffic", _TRAFFIC, ["common.proto"])):
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto3", dependency=needs
        )
        for name, fields in messages.items():
            message = file.message_type.add(name=name)
            for kind, label, number in (text.split() for text in fields.split(", ") if text):
                one = message.field.add(name=label.lstrip("*"), number=int(number))
                one.label = field.LABEL_REPEATED if label.startswith("*") else field.LABEL_OPTIONAL
                if kind.startswith("."):
                    one.type, one.type_name = field.TYPE_MESSAGE, kind
                else:
                    one.type = getattr(field, f"TYPE_{kind.upper()}")
        pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """Return the class of a message by its full name, such as `traffic.TrafficRequest`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))
