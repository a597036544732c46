"""Every named maximum: lengths, queues, tables, rates and times. Bytes and seconds unless stated.

One place, so that a reader sees what an attacker can make a node hold or do. Section numbers are those of
`docs/wire-format.md`.
"""

from __future__ import annotations

from typing import Final

# Link (§1)
LARGEST_RECORD: Final = 65_535  # body of a BOLT 8 record: one bundle of frames
LARGEST_FRAME: Final = 61_440  # kind and body; announced in HELLO
LARGEST_CELL: Final = 61_000  # body of a cell, its tag included; announced in CREATED
SMALLEST_CELL: Final = 1_200  # a sender's cells start at this size (§4)
HANDSHAKE_SECONDS: Final = 10.0  # from connection to HELLO
HALF_OPEN_LINKS: Final = 512  # connections that have not finished their handshake
ACCEPTS_PER_SECOND: Final = 2_000.0  # connections taken from the kernel, per listening socket
ACCEPT_BURST: Final = 256
STRANGERS_PER_SECOND: Final = 32.0  # connections of one source that may begin a handshake
STRANGER_BURST: Final = 128
STRANGERS_IN_ALL: Final = 200.0  # of all sources, per listening socket; twice as many at once
STRANGER_SOURCES: Final = 1_024  # sources remembered
LINKS: Final = 4_096  # neighbours at a time
LINK_SURVIVES: Final = 30.0  # tables live this long without a connection
LANES: Final = 16  # of a link
LANES_IN_ALL: Final = 4_096  # of all links together; each may take half a megabyte of buffers
LANE_LOSERS: Final = 4  # connections of a lane that are read besides the one that serves it
LINK_SILENCE: Final = 15.0  # a connection that owes an answer and says nothing is dead
CONTROL_QUEUE_FRAMES: Final = 4_096  # control frames waiting on one link
CONTROL_QUEUE_BYTES: Final = 4 << 20

# Circuit set-up (§3)
HOPS: Final = 8  # the last included
CREATE_SECONDS: Final = 10.0  # without CREATED: FAILED
CREATES_PER_SECOND: Final = 50.0  # per neighbour, by config
CREATE_BURST: Final = 200
CREATES_IN_ALL: Final = 1_000.0  # per second, of all neighbours together, by config; twice as many at once
LABEL_QUARANTINE: Final = 60.0
REPEATED_DESTROYS: Final = 1_024  # labels named again over a neighbour's next connection
QUARANTINED_LABELS: Final = 8_192  # per link, 1.5 MB; beyond this, unknown labels are not remembered
EXPIRY_STEP: Final = 300
EXPIRY_AHEAD: Final = 25 * 60
EXPIRY_PAST: Final = 5 * 60
REPLAY_PER_NEIGHBOUR: Final = 100_000
REPLAY_IN_ALL: Final = 3_000_000
EPOCH_SECONDS: Final = 6 * 3_600  # an onion key is stated for so long, and opens onions for twice that
EPOCHS: Final = 65_535  # then their numbers begin again
ERROR_TEXT: Final = 200  # UTF-8 bytes of an error onion's sentence
CIRCUITS_PER_NEIGHBOUR: Final = 4_096
CIRCUITS_IN_ALL: Final = 65_536
CIRCUIT_LIFE: Final = 20 * 60
CIRCUIT_IDLE: Final = 60
REPLAY_SKEWED: Final = 10_000  # onions refused for their expiry, remembered so that each is answered once

# Cells (§4)
RELAY_WINDOW: Final = 2_048  # sequence numbers
SEQ_JUMP: Final = 1 << 20
CIRCUIT_QUEUE_BYTES: Final = 2 << 20  # waiting at a relay, per circuit and direction
CIRCUIT_QUEUE_CELLS: Final = 1_024
CIRCUIT_QUEUE_MARK: Final = 1 << 20  # beyond this, cells leave with the congestion bit
QUEUE_SECONDS: Final = 0.1  # cells that waited longer leave with it too
QUEUE_TARGET: Final = 0.005  # seconds that cells or packets may wait where a queue stands (RFC 8289)
QUEUE_MARKS: Final = 8  # signals in a row, since it stands, that mark cells; later ones drop them
QUEUE_INTERVAL: Final = 0.1  # for which all must have waited longer, until it is taken for one that stands
QUEUES_HOLD: Final = 32 << 20  # waiting at a relay, of all circuits together
CELL_HELD: Final = 192  # what a waiting cell costs beside its bytes
TURN_BYTES: Final = 16 << 10  # by turns of so many bytes circuits that wait share a link
LATE_CELLS: Final = 10.0  # cells for a label this long after teardown are in flight
BAD_CELLS: Final = 3  # end-to-end failures that destroy a circuit

# End to end (§5)
SESSION_WINDOW: Final = 8_192  # packet numbers
PACKETS: Final = 1 << 32  # per circuit and direction
AUTH_HELD: Final = 64 << 10  # items held until AUTH opened
PACKET_HELD: Final = 256  # what a held cell costs beside its bytes
AUTH_SECONDS: Final = 10.0  # from the first cell held; then a session without AUTH closes
STREAMS: Final = 1_024  # open at a time, per session and opener
STREAM_WINDOW: Final = 4 << 20  # unread bytes a receiver holds for one stream
SESSION_BUFFER: Final = 32 << 20  # unread bytes a receiver holds for one session
SEND_BUFFER: Final = 4 << 20  # unacknowledged bytes a sender holds for one stream
DATAGRAM_QUEUE: Final = 256  # datagrams waiting to be sent, per session
SESSIONS: Final = 16_384  # per node
SESSIONS_HOLD: Final = 96 << 20  # by all sessions of a node: streams, unread and unacknowledged bytes
STREAM_HELD: Final = 8 << 10  # what a stream costs beside that
SMALLEST_SEND: Final = 4 << 10  # unacknowledged bytes that a stream may always hold
STREAM_FIRST_WINDOW: Final = 256 << 10  # what may be sent on a stream before its first WINDOW
SESSION_FIRST_WINDOW: Final = 1 << 20  # the same for all streams of a session together
SESSION_LEAST_WINDOW: Final = 64 << 10  # unread bytes that a session is allowed when memory is short
STREAM_PIECES: Final = 1_024  # gaps a receiver remembers in one stream
ACK_RANGES: Final = 32  # ranges of packet numbers an ACK names
ACK_EVERY: Final = 16  # cells, unless the sender asks
ACK_DELAY: Final = 0.005  # after the first cell not yet acknowledged
SESSION_SILENCE: Final = 15.0  # a circuit without any acknowledgement this long is dead
DOUBT_SECONDS: Final = 3.0  # the same after the machine has slept
SESSION_SURVIVES: Final = 30.0  # a session with streams lives this long without a circuit
SESSION_PATHS: Final = 4  # circuits of one session at a time
WAYS_MEASURED: Final = 256  # ways of which it is known what circuits along them took
SPARES: Final = 64  # circuits in reserve, of all sessions of a node together; one of each
SPARE_SILENCE: Final = 0.3  # seconds without an answer, at least, after which a session turns to its spare …
SPARE_HEARD: Final = 25.0  # … if that was heard of within so many
BROKEN_CIRCUITS: Final = 6  # that a session lost in a row, each soon after it stood; then it ends
BROKEN_SECONDS: Final = 20.0  # so soon
CELLS_IN_FLIGHT: Final = 4_096  # unacknowledged cells of one circuit; half of SESSION_WINDOW
DATAGRAM_QUEUE_BYTES: Final = 1 << 20
CLOSE_TEXT: Final = 200  # UTF-8 bytes of a CLOSE's sentence
PONGS_WAITING: Final = 16  # answers to PING not yet sent

# Receivers that hide (§6)
TAIL_HOPS: Final = 4  # nodes of a blinded tail, the introduction node and the service's own included
HIDDEN_DATA: Final = 64  # what a tail tells one of its nodes, padded; 16 more encrypted
PATH_ID: Final = 16
HIDDEN_SERVICES: Final = 64  # of one node
ADDRESSES_PER_SERVICE: Final = 8  # that have not expired
ADDRESS_LIFE: Final = 366 * 86_400
HIDDEN_DELAY: Final = 0.1  # seconds at most, by chance, before an introduction node says `blinded`

# The local door (§7)
DOOR_LINE: Final = 1_024  # a line, its end included
DOOR_LINE_SECONDS: Final = 10.0  # for a process that has connected to say its line
DOOR_ACCEPT_SECONDS: Final = 10.0  # for a stream that came in to be accepted by a process
DOOR_CONNECTIONS: Final = 4_096  # of processes, at a time
DOOR_PORTS: Final = 256  # mesh ports that processes hold
DOOR_WAITING: Final = 256  # streams that no process has accepted yet
DOOR_READ: Final = 256 << 10  # taken from a process at once, and held while its stream takes no more
DOOR_UNREAD_LINES: Final = 64 << 10  # lines that a process does not read; then its streams are refused
DOOR_LINGER_SECONDS: Final = 60.0  # a stream outlives its process so long, for what is still on its way
DOOR_LINGER_BYTES: Final = 1 << 20  # bytes for a process that has gone, thrown away; then the stream is reset

# Calls (docs/rpc.md), per connection and side unless stated
RPC_BODY: Final = 256 << 10  # body of a frame: a request, an answer
RPC_ITEM: Final = 64 << 10  # body of a streamed item
RPC_CREDIT: Final = 128 << 10  # streamed bytes, unread, of one call and direction; heads included
RPC_CALLS: Final = 256  # calls of the peer that are not ended
RPC_STREAMED: Final = 32  # of them those with streamed items
RPC_REQUESTS: Final = 4 << 20  # bytes of their requests
RPC_CANCELS: Final = 256  # calls a second that the peer cancels; the ends of others come RPC_HELD later
RPC_HELD: Final = 1.0  # for which such a call still counts as one that is not ended
RPC_WAITING: Final = 4_096  # calls of our own that wait for their turn
RPC_BOUND: Final = 256  # methods that a caller has named
RPC_QUEUE_MARK: Final = 1 << 20  # bytes to send; beyond this nothing more is read or begun
RPC_QUEUE: Final = 8 << 20  # beyond this, for a peer that reads nothing, the connection ends
RPC_SECONDS: Final = 30.0  # for a call that says nothing else
RPC_LONGEST: Final = 86_400.0  # that a call may ask for
RPC_GRANTED: Final = 600.0  # to a call of the peer, unless the service that it calls grants more or less
RPC_GRACE: Final = 30.0  # from the end of a call on one side to its end on the other
RPC_HELLO: Final = 10.0  # from the first byte to the peer's HELLO
RPC_IDLE: Final = 60.0  # without a call: the side that opened the connection closes it
RPC_FORGOTTEN: Final = 180.0  # the same for the other side
RPC_LINGER: Final = 10.0  # from the end of a connection to that of its stream, if the peer does not end it
RPC_CONNECTIONS: Final = 256  # of one served port; then who has most of them gives one up for who has fewer
RPC_REDIAL: Final = 0.5  # after a first failed attempt to reach a peer; doubles with each that follows
RPC_REDIAL_MOST: Final = 30.0
RPC_TEXT: Final = 200  # UTF-8 bytes of an error's sentence

# Topology (docs/topology.md)
LINKS_STATED: Final = 1_024  # links in one record
RECORDS: Final = 50_000  # of nodes that are connected to this one
RECORDS_APART: Final = 8_192  # of nodes that are not, as far as is known
RECORDS_APART_PER_PEER: Final = 4_096  # of these, told by one neighbour
RECORD_AHEAD: Final = 2 * 3_600  # a record may be issued so far in the future: clocks differ
RECORD_LIFE: Final = 24 * 3_600  # a record that claims a longer life is refused
RECORD_BURST: Final = 6  # records of one node, at once …
RECORD_STEP: Final = 60.0  # … and one more in so many seconds
OFFERS: Final = 1_024  # names in one frame
RECORDS_ASKED: Final = 256  # records asked of one neighbour and not yet come
RECORDS_WANTED: Final = 8_192  # records one neighbour has offered and nobody sent yet
ASK_SECONDS: Final = 2.0  # then another neighbour is asked
RECORDS_OWED: Final = 4_096  # records a neighbour has asked for and not yet got
SPREAD_SHARE: Final = 0.02  # of a link's capacity, for records
SPREAD_LEAST: Final = 4_000  # bytes per second that a link may always use for records
SPREAD_BURST: Final = 256 << 10  # bytes at once, for the first meeting
SPREAD_NODES: Final = (
    1_000  # in larger networks who has a route service, or is one, tells only its own record
)
OFFER_SECONDS: Final = 0.1  # news are gathered so long before they are offered
SUMMARY_SECONDS: Final = 300.0  # between comparisons of all records with a neighbour
BUCKETS: Final = 4_096  # digests in one comparison
SYNC_RECORDS: Final = 200_000  # records that a route service keeps, and that one look may list
SYNC_ASKED: Final = 512  # records asked of a route service at once
SYNC_DIGESTS: Final = 4  # comparisons in one look
SYNC_RATE: Final = 1 << 20  # bytes per second that a route service sends to one caller …
SYNC_BURST: Final = 1 << 22  # … and at once
SYNC_CALLERS: Final = 64  # looks that a route service answers at a time
SYNC_IDLE: Final = 30.0  # seconds of silence after which a look is over
SYNC_LONGEST: Final = 900.0  # seconds that a look may take
SYNC_CATALOGUE: Final = 5.0  # seconds for which a route service's list of records holds
ROUTE_QUESTIONS: Final = 10.0  # a second that a route service answers, in all …
ROUTE_QUESTIONS_BURST: Final = 40  # … and at once
TRAILS: Final = 16  # links, and as many paths, of which the past is kept
POLICY_TEXT: Final = 2_000  # characters of a path policy
POLICY_PATHS: Final = 16  # paths that share no relay, in one answer
THROUGH_LINKS: Final = 64  # links over circuits, of ours; and as many of others
THROUGH_PIPE: Final = 256 << 10  # bytes of such a link that wait to go into its stream
THROUGH_SECONDS: Final = 15.0  # for such a link to stand
THROUGH_IDLE: Final = 600.0  # without a circuit over it; then it is given up
SUSPECTS: Final = 4_096  # relays whose circuits are counted
PATHS_WEIGHED: Final = 64  # candidates looked at for one choice
PATHS_EDGES: Final = 400_000  # links that the searches for one choice look at; about 0.4 s
INVITE_TEXT: Final = 600  # characters of an invite
INVITE_PEERS: Final = 8  # nodes that it names
INVITE_ADDRESSES: Final = 4  # addresses of each
INVITE_ADDRESS: Final = 200  # characters of an address
LAN_HEARD: Final = 256  # nodes of local networks that are heard
LAN_DIALLED: Final = 3  # of them dialled; others dial this one
BEACON_BURST: Final = 64  # beacons whose signatures are checked at once …
BEACON_RATE: Final = 16  # … and so many more in a second

# Logs (docs/operations.md)
LOG_BURST: Final = 100  # lines of one place in the sources, in LOG_WINDOW
LOG_WINDOW: Final = 10.0
LOG_KINDS: Final = 1_024  # places in the sources that are counted
LOG_LINE: Final = 16_384  # characters of a line
LOG_FIELD: Final = 1_024  # characters of a field of a JSON line
LOG_RECENT: Final = 500  # lines kept in memory

# Packets (docs/vpn.md)
TUN_FLOW_BYTES: Final = 2 << 20  # of packets that wait for one stream
TUN_SEGMENTS: Final = 512  # packets that one superpacket may stand for, so that no few bytes become many
TUN_LEARNED: Final = 4_096  # keys that a mesh interface has only heard of
TUN_ANSWERS_PER_SECOND: Final = 32 << 10  # bytes of ICMP errors

# Storage
SECRET_FILE: Final = 64 << 10  # a key file or another secret
PASSWORD: Final = 1_024  # bytes of a key's password
PASSWORD_PASSES: Final = 16  # of Argon2id that a sealed key file may ask for
PASSWORD_MEMORY: Final = 1 << 30  # bytes of memory that it may ask for
JOURNAL_RECORD: Final = 64 << 10  # data of one record
JOURNAL_SIZE: Final = 1 << 30  # a whole journal file
JOURNAL_SEARCH: Final = 16 << 20  # behind the first record that is not whole, looked through for others
JOURNAL_WAITING: Final = 16 << 20  # records that wait for a sync, of one journal
RESERVE: Final = 2 << 20  # held back on a node's disk for last words
SPACE_FULL: Final = 1 << 20  # with less left, the reserve is given back
SPACE_LOW: Final = 16 << 20  # with less left, nothing new is kept
SPACE_ENOUGH: Final = 32 << 20  # with so much again, it is
QUARANTINE_ITEMS: Final = 32  # damaged files set aside, each with what belongs to it
QUARANTINE_BYTES: Final = 1 << 30  # of all of them; the newest stays whatever its size
DATABASE_BUSY_SECONDS: Final = 5.0  # waiting for another connection to the same database
DATABASE_WAL: Final = 64 << 20  # what a database's log shrinks to when it has been copied into it
DATABASE_HASHED: Final = 256 << 20  # larger databases are not read through when they are closed and opened
DATABASE_BACKUPS: Final = 3  # copies from before migrations
DATABASE_BATCH: Final = 1_000  # waiting writes that share one transaction
DATABASE_WAITING: Final = 100_000  # writes that wait, of one database

# The coin's network (docs/coin.md), per connection unless stated
COIN_FRAME: Final = 1 << 20  # what a frame's length may say
COIN_SENT_FRAME: Final = 256 << 10  # of our own frames
COIN_BLOCKS: Final = 128  # blocks of one GIVB
COIN_IDS: Final = 256  # transactions of one ANNT, GETT, GIVT
COIN_PEERS_GIVEN: Final = 512  # addresses of one GIVP
COIN_EXTRA: Final = 4_096  # what an INTR says beyond its first three numbers
COIN_AGENT: Final = 256  # a user agent
COIN_RESERVED: Final = 1_024  # bytes of a DISC after its reason
COIN_PEERS: Final = 128  # connections of a node, eight of them for those that it dials
COIN_PEERS_OF_PLACE: Final = 3  # connections from one IP address, or of one key
COIN_QUEUE: Final = 4 << 20  # bytes that wait for a peer that does not read
COIN_CONDUCT: Final = 4_096  # peers whose conduct is remembered
COIN_ADDRESSES: Final = 4_096  # of nodes, known to a node
COIN_ASKED: Final = 4_096  # loose transactions asked for and not come, of all peers
COIN_ASKED_OF_PEER: Final = 256
COIN_REFUSED: Final = 16_384  # ids of wrong transactions that are remembered
COIN_UNASKED_BURST: Final = 64  # transactions that a peer may give unasked at once; then five a second
COIN_POOL: Final = 10_000  # loose transactions
COIN_POOL_BYTES: Final = 16 << 20
COIN_POOL_SECONDS: Final = 3 * 86_400  # a loose transaction that no block takes is forgotten
COIN_SIGNERS: Final = 8  # processes that check signatures
COIN_RUNS: Final = 8  # runs of blocks that wait to be stored
COIN_KEYS: Final = 1_000  # of the API, in all
COIN_KEY_RATE: Final = 100_000  # requests per second that one may be given
COIN_EVENT_LISTENERS: Final = 128  # at once
COIN_EVENT_ADDRESSES: Final = 10_000  # that one of them watches
COIN_EVENT_CONFIRMATIONS: Final = 1_000  # after which one may ask to hear of a transaction
COIN_EVENT_MESSAGE: Final = 512 << 10  # bytes of what a client says on a WebSocket
COIN_EVENT_FRAMES: Final = 1_000  # of one WebSocket in a second
COIN_EVENT_REPLAYS: Final = 4  # of them whose past is read at the same time; others wait
COIN_EVENT_STALL_SECONDS: Final = 60.0  # in which one reads nothing; then it is told goodbye

# The coin's REST API (docs/coin-api.md)
COIN_API_CONNECTIONS: Final = 256  # at once; then new ones are closed
COIN_API_HEAD: Final = 256 << 10  # bytes of a request's first line and headers
COIN_API_HEADERS: Final = 100  # of one request
COIN_API_BODY: Final = 1 << 20  # bytes of a request's body
COIN_API_FIELDS: Final = 64  # of a query or a form
COIN_API_NAMES: Final = 10_000  # addresses, hashes or block numbers in one question
COIN_API_BLOCKS: Final = 4_096  # blocks of one answer
COIN_API_LAST_BLOCKS: Final = 256  # the same of /last_blocks
COIN_API_TRANSACTIONS: Final = 50_000  # transactions of one answer
COIN_API_READ_SECONDS: Final = 10.0  # for a request to come, from its first byte
COIN_API_WRITE_SECONDS: Final = 60.0  # for its answer to be made and fetched
COIN_API_IDLE_SECONDS: Final = 120.0  # between two requests of a connection
COIN_API_NOTES: Final = 10_000  # keys of one kind that /api/v2/data keeps
COIN_API_NOTE_BYTES: Final = 64 << 10  # of one key and its value; 4 MiB of a kind together
COIN_API_NOTES_BYTES: Final = 4 << 20
COIN_WITHDRAWAL_ID: Final = 128  # characters of the id of a withdrawal
COIN_WITHDRAWALS_OPEN: Final = 10_000  # withdrawals that are in no block yet
