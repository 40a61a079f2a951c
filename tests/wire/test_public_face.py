"""The package's whole public face. A name leaves or joins this list by decision, not by accident."""

import wire

PUBLIC = """
    ACKNOWLEDGE_ROWS_MAX
    AioMqttConnector
    BDSEQ
    BLOCK_BYTES_MAX
    BlockColumn
    BlockError
    BlockFrames
    BlockTooLargeError
    BrokerAddress
    BrokerRefusedError
    BrokerUnavailableError
    CLOCK_OFFSET
    CLOCK_SYNCED
    CONFIG_HASH
    Command
    CorruptBlockError
    DataColumns
    DataSet
    DataType
    Dropped
    EDGE_VERSION
    Expired
    Frame
    HostState
    INTERVALS_MAX
    IntervalsFullError
    InvalidBlockError
    Language
    LinkLostError
    MalformedPayloadError
    MalformedReceivedError
    MalformedStateError
    MalformedTopicError
    MemoryBroker
    MemoryConnector
    Message
    MessageKind
    Metric
    MqttConnector
    MqttError
    MqttLink
    NAMESPACE
    Native
    OversizePayloadError
    PAYLOAD_LIMITS
    Payload
    PayloadLimits
    QUALITY_DETAIL_PROPERTY
    QUALITY_PROPERTY
    Quality
    REBIRTH
    Reason
    Received
    ReorderBuffer
    SPOOL_ACKNOWLEDGE
    SPOOL_BLOCK
    SPOOL_FAULT
    SPOOL_PREDECESSOR
    SPOOL_PREDECESSOR_LAST
    SPOOL_PREFIX
    SPOOL_SEQUENCE
    SPOOL_STREAM
    SPOOL_UNFINISHED
    SampleBatch
    SeqCheck
    SeqVerdict
    ShapeMismatchError
    SpoolBlock
    StreamSpan
    SubscribeRefusedError
    TIMESTAMP_MS_MAX
    Topic
    UNFINISHED_ROWS_MAX
    ValueKind
    Will
    WireError
    build_topic
    check_id
    conform
    decode_block
    decode_command
    decode_data
    decode_payload
    decode_state
    describe
    encode_acknowledge
    encode_block
    encode_data
    encode_payload
    encode_rebirth
    encode_state
    frames_of
    is_quality_code
    native_value
    new_stream_id
    next_bdseq
    next_seq
    node_filter
    parse_topic
    quality_code
    quality_from_wire
    quality_of
    quality_on_wire
    read_unfinished
    reason_of
    sample_metric
    state_topic
    topic_matches
    unfinished_table
""".split()


def test_the_public_face_is_exactly_this():
    assert sorted(wire.__all__) == PUBLIC


def test_every_public_name_is_there_and_stands_once():
    assert all(hasattr(wire, name) for name in wire.__all__)
    assert len(set(wire.__all__)) == len(wire.__all__)
