#!/usr/bin/env escript
%% Writes tables of sessions as Erlang does, and beside them what they hold, as evstore writes it.
%%
%%     escript ets.escript FOLDER
%%
%% The structs are those of Elixir, which are maps with the key '__struct__'.

main([Folder]) ->
    Sessions = structs() ++ stores() ++ maps(),
    Variables = [{{id("loose", N), Name}, Value}
                 || N <- lists:seq(1, 6), {Name, Value} <- maps:to_list(values(N))],
    Place = fun(Name) -> filename:join(Folder, "ets_" ++ Name) end,
    write(sessions, Sessions, Place("sessions.tab"), []),
    write(variables, Variables, Place("variables.tab"),
          [{extended_info, [md5sum, object_count]}]),
    List = ets:tab2list(table(list, Sessions)),
    ok = file:write_file(Place("list.etf"), term_to_binary(List, [compressed])),
    Lines = [line(Session, Name, Value, Time)
             || {Session, Name, Value, Time} <- told(Sessions) ++ told(Variables)],
    ok = file:write_file(Place("told.jsonl"), Lines).

table(Name, Rows) ->
    Table = ets:new(Name, [set]),
    true = ets:insert(Table, Rows),
    Table.

write(Name, Rows, Place, Options) ->
    ok = ets:tab2file(table(Name, Rows), Place, Options).

id(Word, N) -> list_to_binary(io_lib:format("~s-~2..0b", [Word, N])).

%% Sessions, in each of the forms that they may have.

structs() ->
    Rows = [{id("session", N), session(N, variables, values(N))} || N <- lists:seq(1, 8)],
    Rows ++ [{atom_id, session(9, variables, values(9))},
             {4711, session(10, variables, #{<<"by">> => <<"integer">>})},
             {"charlist", session(11, variables, #{<<"by">> => "list"}), 1700000000, extra}].

stores() ->
    [{id("store", N),
      session(N, variable_store,
              #{'__struct__' => 'Elixir.SnakepitGrpcBridge.Session.VariableStore',
                variables => maps:map(fun(_, Value) -> entry(N, Value) end, values(N))})}
     || N <- lists:seq(1, 6)].

%% A term of 65,528 bytes or more has a checksum before it.
maps() -> [{<<"large">>, #{<<"text">> => binary:copy(<<"0123456789abcdef">>, 4096)}}
           | [{id("map", N), values(N)} || N <- lists:seq(1, 6)]].

session(N, Place, Variables) ->
    #{'__struct__' => 'Elixir.SnakepitGrpcBridge.Session', id => id("session", N),
      created_at => moment(N), Place => Variables}.

entry(N, Value) -> #{value => Value, created_at => moment(N), updated_at => moment(N + 20)}.

values(1) -> #{<<"text">> => <<"caf", 195, 169, " \"quoted\" \\ \n">>, <<"bytes">> => <<255, 0, 1>>,
               <<"empty">> => <<>>, atom_name => an_atom, <<"nothing">> => nil,
               <<"undefined">> => undefined, <<"yes">> => true, <<"no">> => false};
values(2) -> #{<<"small">> => 7, <<"negative">> => -70000, <<"big">> => 1 bsl 80,
               <<"bigger">> => -(1 bsl 3000), <<"float">> => 0.1, <<"large">> => 1.5e300};
values(3) -> #{<<"list">> => [1, 2, 3], <<"numbers">> => [1, -2, 300, 1.5],
               <<"none">> => [], <<"tuple">> => {ok, <<"x">>, {}},
               <<"deep">> => [[[[[{[#{<<"a">> => [1]}]}]]]]]};
values(4) -> #{<<"config">> => #{<<"temperature">> => 0.7, top_p => 1, <<"stop">> => [<<"END">>]},
               <<"by_number">> => #{1 => <<"one">>, 2 => <<"two">>}, <<"map">> => #{},
               <<"by_map">> => #{#{a => 1} => 2}, <<"twice">> => #{a => 1, <<"a">> => 2},
               <<"by_tuple">> => #{{1, <<"x">>} => 1, [1, 2, 300] => 2}};
values(5) -> #{<<"moment">> => moment(5), <<"naive">> => naive(), <<"date">> => date_of(),
               <<"time">> => time_of(), <<"paris">> => paris(), <<"decimal">> => decimal(),
               <<"set">> => set(), <<"struct">> => #{'__struct__' => 'Elixir.Thing', a => 1}};
values(N) -> #{<<"number">> => N, <<"square">> => N * N}.

date_of() -> #{'__struct__' => 'Elixir.Date', calendar => 'Elixir.Calendar.ISO',
               year => 2026, month => 1, day => 31}.
time_of() -> #{'__struct__' => 'Elixir.Time', calendar => 'Elixir.Calendar.ISO',
               hour => 23, minute => 59, second => 58, microsecond => {123456, 6}}.
naive() -> maps:merge(maps:merge(date_of(), time_of()),
                      #{'__struct__' => 'Elixir.NaiveDateTime'}).
moment(N) -> maps:merge(naive(), #{'__struct__' => 'Elixir.DateTime', minute => N,
                                   time_zone => <<"Etc/UTC">>, zone_abbr => <<"UTC">>,
                                   utc_offset => 0, std_offset => 0}).
paris() -> maps:merge(moment(1), #{time_zone => <<"Europe/Paris">>, zone_abbr => <<"CEST">>,
                                   utc_offset => 3600, std_offset => 3600}).
decimal() -> #{'__struct__' => 'Elixir.Decimal', sign => -1, coef => 12345, exp => -2}.
set() -> #{'__struct__' => 'Elixir.MapSet', map => #{1 => [], 2 => []}, version => 2}.

%% What a reader should find: {Session, Name, Value, Time}.

told(Rows) -> lists:append([told_row(Row) || Row <- Rows]).

told_row({{Session, Name}, Value}) -> [{Session, Name, Value, nil}];
told_row({Session, #{variable_store := #{variables := Entries}}}) ->
    [{Session, Name, Value, Time}
     || {Name, #{value := Value, updated_at := Time}} <- maps:to_list(Entries)];
told_row({Session, #{variables := Variables} = Fields}) ->
    [{Session, Name, Value, maps:get(created_at, Fields)}
     || {Name, Value} <- maps:to_list(Variables)];
told_row({Session, Fields, _, _}) -> told_row({list_to_binary(Session), Fields});
told_row({Session, Fields}) ->
    [{Session, Name, Value, nil} || {Name, Value} <- maps:to_list(Fields)].

line(Session, Name, Value, Time) ->
    [$[, lists:join($,, [json(name(Session)), json(name(Name)), json(Value), json(Time)]), "]\n"].

name(Id) when is_integer(Id) -> integer_to_binary(Id);
name(Id) -> Id.

json(nil) -> "null";
json(undefined) -> "null";
json(true) -> "true";
json(false) -> "false";
json(Atom) when is_atom(Atom) -> json(atom_to_binary(Atom));
json(Number) when is_integer(Number), abs(Number) < 1 bsl 63 -> integer_to_list(Number);
json(Number) when is_integer(Number) ->
    Sign = if Number < 0 -> "-"; true -> "" end,
    tagged("int", [$", Sign, "0x", string:lowercase(integer_to_list(abs(Number), 16)), $"]);
json(Number) when is_float(Number) -> io_lib:format("~w", [Number]);
json(Bytes) when is_binary(Bytes) ->
    case unicode:characters_to_list(Bytes) of
        Text when is_list(Text) -> [$", [escaped(Character) || Character <- Text], $"];
        _ -> tagged("bytes", [$", base64:encode(Bytes), $"])
    end;
json(List) when is_list(List) -> listed([json(Item) || Item <- List]);
json(Tuple) when is_tuple(Tuple) -> tagged("tuple", json(tuple_to_list(Tuple)));
json(#{'__struct__' := 'Elixir.DateTime', time_zone := <<"Etc/UTC">>} = Fields) ->
    tagged("datetime", [$", day(Fields), "T", clock(Fields), "+00:00", $"]);
json(#{'__struct__' := 'Elixir.DateTime', time_zone := Zone} = Fields) ->
    Text = [$", day(Fields), "T", clock(Fields), "+02:00", $"],
    tagged("datetime", listed([Text, ["{\"name\":", json(Zone), "}"]]));
json(#{'__struct__' := 'Elixir.NaiveDateTime'} = Fields) ->
    tagged("datetime", [$", day(Fields), "T", clock(Fields), $"]);
json(#{'__struct__' := 'Elixir.Date'} = Fields) -> tagged("date", [$", day(Fields), $"]);
json(#{'__struct__' := 'Elixir.Time'} = Fields) -> tagged("time", [$", clock(Fields), $"]);
json(#{'__struct__' := 'Elixir.Decimal'}) -> tagged("decimal", "\"-123.45\"");
json(#{'__struct__' := 'Elixir.MapSet', map := Map}) -> tagged("set", json(maps:keys(Map)));
json(Map) ->
    Pairs = maps:to_list(Map),
    Texts = lists:usort([iolist_to_binary(json(Key)) || {Key, _} <- Pairs]),
    IsHashable = not lists:any(fun({Key, _}) -> is_map(Key) or is_list(Key) end, Pairs),
    IsPlain = lists:all(fun(Text) -> binary:first(Text) =:= $" end, Texts),
    if not IsHashable; length(Texts) < length(Pairs) ->
           listed([json(Pair) || Pair <- Pairs]);
       IsPlain ->
           [${, lists:join($,, [[json(Key), $:, json(Value)] || {Key, Value} <- Pairs]), $}];
       true ->
           tagged("dict", listed([listed([json(Key), json(Value)]) || {Key, Value} <- Pairs]))
    end.

tagged(Tag, Json) -> ["{\"$", Tag, "\":", Json, $}].

listed(Items) -> [$[, lists:join($,, Items), $]].

escaped(Character) when Character < 32; Character =:= $"; Character =:= $\\; Character > 126 ->
    io_lib:format("\\u~4.16.0b", [Character]);
escaped(Character) -> Character.

day(#{year := Year, month := Month, day := Day}) ->
    io_lib:format("~4..0b-~2..0b-~2..0b", [Year, Month, Day]).

clock(#{hour := Hour, minute := Minute, second := Second, microsecond := {Us, _}}) ->
    io_lib:format("~2..0b:~2..0b:~2..0b.~6..0b", [Hour, Minute, Second, Us]).
