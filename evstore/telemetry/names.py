"""Every name that telemetry gives to anything, since the conventions for agents still move."""

from typing import Final

from evstore.events import (
    LABEL_SET,
    MESSAGE_ADDED,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    MESSAGES_CLEARED,
    METADATA_DELETED,
    METADATA_SET,
    SESSION_DELETED,
    SESSION_RESTORED,
    VARIABLE_DELETED,
    VARIABLE_SET,
)

SCOPE: Final = "evstore"

# Steps: the names of spans, and of the histograms of how long they take.
VARIABLE_SET_STEP: Final = "evstore.session.variable.set"
VARIABLE_GET_STEP: Final = "evstore.session.variable.get"
VARIABLE_DELETE_STEP: Final = "evstore.session.variable.delete"
METADATA_GET_STEP: Final = "evstore.session.metadata.get"
MESSAGE_APPEND_STEP: Final = "evstore.session.message.append"
RECORD_STEP: Final = "evstore.session.record"
BATCH_STEP: Final = "evstore.session.batch"
FORK_STEP: Final = "evstore.session.fork"
TRANSACTION_STEP: Final = "evstore.transaction"
STEPS: Final = {
    VARIABLE_SET: VARIABLE_SET_STEP,
    VARIABLE_DELETED: VARIABLE_DELETE_STEP,
    METADATA_SET: "evstore.session.metadata.set",
    METADATA_DELETED: "evstore.session.metadata.delete",
    MESSAGE_ADDED: MESSAGE_APPEND_STEP,
    MESSAGE_REMOVED: "evstore.session.message.remove",
    MESSAGE_REPLACED: "evstore.session.message.replace",
    MESSAGES_CLEARED: "evstore.session.message.clear",
    LABEL_SET: "evstore.session.label",
    SESSION_DELETED: "evstore.session.delete",
    SESSION_RESTORED: "evstore.session.restore",
}
STEP_OF_CAUSE: Final = "evstore.session.{}"  # undo, redo, revert, merge

# Instruments.
DURATION: Final = "{}.duration"
SIZE: Final = "{}.size"
SERIALIZATION_DURATION: Final = "evstore.serialization.duration"
VARIABLES: Final = "evstore.session.variables"
EVENTS: Final = "evstore.events"
ERRORS: Final = "evstore.errors"
COMPRESSION_RATIO: Final = "evstore.compression.ratio"
GROUP_SIZE: Final = "evstore.group.size"
GROUP_WAIT: Final = "evstore.group.wait"
WAL_SIZE: Final = "evstore.wal.size"

# Attributes. Those of the first group take few values, and go to metrics as well.
DIRECTION: Final = "evstore.serialization.direction"
ERROR_TYPE: Final = "error.type"
EVENT_KIND: Final = "evstore.event.kind"
FOUND: Final = "evstore.variable.found"
OPERATION: Final = "evstore.operation"
VARIABLE_TYPE: Final = "evstore.variable.type"

CONVERSATION_ID: Final = "gen_ai.conversation.id"
EVENT_COUNT: Final = "evstore.event.count"
SESSION_COUNT: Final = "evstore.session.count"
CONFLICT_COUNT: Final = "evstore.merge.conflict.count"
REPLAYED: Final = "evstore.replayed"
SIZE_BYTES: Final = "evstore.size"
VARIABLE_COUNT: Final = "evstore.session.variable.count"
VARIABLE_NAME: Final = "evstore.variable.name"
GROUP_SIZE_OF_SPAN: Final = "evstore.group.size"
GROUP_WAIT_OF_SPAN: Final = "evstore.group.wait"  # in seconds
