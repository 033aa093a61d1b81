-- What was said, by its words: a full-text index that follows the log, and is derived from it.
-- It keeps no text of its own (the log has it), and `follower` remembers how far it has come.

create virtual table search using fts5(
  text,
  content='', contentless_delete=1,
  tokenize="unicode61 remove_diacritics 2"
);
