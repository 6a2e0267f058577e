# Runs one service and ends it when its owner is gone, however the owner went.
#
#   sh -c THIS NAME PROGRAM
#
# stdin is a pipe whose other end only the owner holds: its end of file is the order to end. stdout takes the service's process id,
# once. stderr is the service's log.
exec 3<&0 4>&1 </dev/null >&2
"$@" 3<&- 4>&- &
service=$!
echo "$service" >&4
exec 4>&-
(
    while read -r _ <&3; do :; done
    kill -s KILL "$service"
) >/dev/null 2>&1 &
watcher=$!
wait "$service"
kill -s KILL "$watcher" 2>/dev/null
