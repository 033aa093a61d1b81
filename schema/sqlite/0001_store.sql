-- The file format, version 1. Every column is explained in schema/README.md.
-- A released file of this folder is never edited, only followed by the next number.

-- The log: what happened. Triggers below hold it append-only.

create table kind(                      -- the names of what can happen
  number integer primary key,
  name   text not null unique
) strict;

create table session(                   -- one row per life of a session: its birth
  number  integer primary key check(number between 1 and 0x7fffffff),
  uid     blob not null unique check(length(uid) = 16),
  id      text,
  created integer not null,
  parent  integer references session,
  fork    integer,
  salt    blob check(length(salt) = 16),
  leaf    blob check(length(leaf) = 32),
  position integer not null references batch,
  ended   integer references kind
) strict;
create unique index session_living on session(id) where ended is null;
create index session_ended on session(id, number) where ended is not null;
create index session_parent on session(parent, fork) where parent is not null;

create table batch(                     -- one row per commit and session, in commit order
  position integer primary key,
  session  integer not null references session,
  first    integer not null,
  last     integer not null check(last >= first - 1),
  time     integer not null,
  actor    text,
  cause    text,
  key      text,
  link     blob not null check(length(link) = 32)
) strict;
create unique index batch_key on batch(session, key) where key is not null;
create index batch_merge on batch(session, cause) where cause >= 'merge:' and cause < 'merge;';

create table event(                     -- one row per event, clustered by session
  id       integer primary key,
  kind     integer not null references kind,
  version  integer not null default 1,
  name     text,
  base     integer,
  operand  integer,
  encoding integer not null check(encoding between 0 and 3),
  delta    integer check((delta is not null) = (encoding = 2)),
  size     integer not null,
  position integer not null references batch,
  salt     blob check(length(salt) = 16),
  data     any
) strict;

-- The present, and moments of the past: derived from the log, droppable, made anew by `rebuild`.

create table variable(                  -- the newest event of every name a session wrote itself
  session integer not null,
  family  integer not null,
  name    text not null,
  seq     integer not null,
  created integer,
  operand integer,
  value   text,
  primary key(session, family, name)
) strict, without rowid;
create index variable_metadata on variable(name, value, session)
  where family = 2 and created is not null;

create table checkpoint(                -- the state at some moments, as references into the log
  id       integer primary key,
  messages integer not null,
  ranges   blob not null,
  names    blob not null
) strict;

-- Outside the log: deadlines that slide, and how far the followers of the log have come.

create table lease(
  session integer primary key references session,
  expires integer not null,
  ttl     integer
) strict;
create index lease_expires on lease(expires);

create table follower(
  name     text primary key,
  position integer not null
) strict;

insert into kind(number, name) values
  (1, 'variable.set'), (2, 'variable.deleted'), (3, 'metadata.set'), (4, 'metadata.deleted'),
  (5, 'message.added'), (6, 'message.removed'), (7, 'message.replaced'), (8, 'messages.cleared'),
  (9, 'messages.reverted'), (10, 'label.set'), (11, 'session.deleted'), (12, 'session.restored'),
  (13, 'session.expired'), (14, 'session.erased'), (15, 'session.checkpointed');

-- What the log permits: appending, encoding anew (same salt, size and name), and forgetting.

create trigger event_frozen before update on event when not (
    new.id = old.id and new.kind = old.kind and new.version = old.version and new.base is old.base
    and new.operand is old.operand and new.size = old.size and new.position = old.position
    and ((new.name is old.name and new.salt is old.salt and old.encoding < 3 and new.encoding < 3
        and (old.encoding > 0 or new.encoding > 0 or new.data is old.data))
      or (old.encoding < 3 and new.encoding = 3 and new.salt is null and new.name is null
          and length(new.data) = 32)))
  begin select raise(abort, 'events never change'); end;
create trigger event_kept before delete on event
  begin select raise(abort, 'events are kept'); end;
create trigger batch_frozen before update on batch when not (
    new.position = old.position and new.session = old.session and new.first = old.first
    and new.last = old.last and new.time = old.time and new.link = old.link
    and new.actor is null and new.cause is null and new.key is null)
  begin select raise(abort, 'batches never change'); end;
create trigger batch_kept before delete on batch
  begin select raise(abort, 'batches are kept'); end;
create trigger session_frozen before update on session when not (
    new.number = old.number and new.uid = old.uid and new.created = old.created
    and new.parent is old.parent and new.fork is old.fork and new.position = old.position
    and ((new.id is old.id and new.salt is old.salt and new.leaf is old.leaf)
      or (old.leaf is null and new.id is null and new.salt is null and length(new.leaf) = 32)))
  begin select raise(abort, 'a birth never changes'); end;
create trigger session_kept before delete on session
  begin select raise(abort, 'sessions are kept'); end;
create trigger kind_frozen before update on kind
  begin select raise(abort, 'kinds never change'); end;
create trigger kind_kept before delete on kind
  begin select raise(abort, 'kinds are kept'); end;

-- Views for people with any SQLite shell. Their names and columns are stable.

create view sessions as
  select s.id, lower(hex(s.uid)) as uid,
    strftime('%Y-%m-%dT%H:%M:%S', s.created / 1000000, 'unixepoch')
      || printf('.%06dZ', s.created % 1000000) as created_at,
    coalesce((select max(e.id) & 0xffffffff from event e
              where e.id between s.number << 32 and (s.number << 32) + 0xffffffff), s.fork, 0) as head,
    p.id as parent, s.fork, k.name as ended
  from session s left join session p on p.number = s.parent left join kind k on k.number = s.ended;

create view events as
  select s.id as session, e.id & 0xffffffff as seq, e.position,
    strftime('%Y-%m-%dT%H:%M:%S', b.time / 1000000, 'unixepoch')
      || printf('.%06dZ', b.time % 1000000) as time,
    k.name as kind, e.name, case e.encoding when 0 then e.data end as data, e.size,
    b.actor, b.cause, lower(hex(s.uid)) as uid
  from event e join session s on s.number = e.id >> 32 join batch b on b.position = e.position
    join kind k on k.number = e.kind;

create view variables as
  select s.id as session, v.name,
    coalesce(v.value, case e.encoding when 0 then e.data -> '$.value' end) as value, v.seq
  from variable v join session s on s.number = v.session
    left join event e on e.id = (v.session << 32) + v.seq
  where v.family = 1 and v.created is not null and s.ended is null
    and (v.operand is null or v.operand > unixepoch('subsec') * 1000000);

create view messages as
  select s.id as session, e.id & 0xffffffff as seq,
    case e.encoding when 0 then json_extract(e.data, '$.message.role') end as role,
    case e.encoding when 0 then json_extract(e.data, '$.message.content') end as content,
    e.size, b.actor,
    (select min(g.id) & 0xffffffff from event g
     where g.id > e.id and g.id <= (s.number << 32) + 0xffffffff
       and (g.kind = 8 or (g.kind in (6, 7) and g.operand = e.id & 0xffffffff)
         or (g.kind = 9 and g.operand < e.id & 0xffffffff))) as gone
  from event e join session s on s.number = e.id >> 32 join batch b on b.position = e.position
  where e.kind in (5, 7) and s.ended is null;
