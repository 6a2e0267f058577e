# Runs one server and ends it when its owner is gone, however the owner went.
#
#   sh -c THIS NAME FIRST SECOND TICKS COMMAND...
#
# stdin is a socket whose other end only the owner holds: the server's pid is written to it once, and its end of file is
# the order to stop. FIRST and SECOND are the signals to try, each given TICKS tenths of a second before the next; KILL is
# the last. stdout is held open while this script lives and never written. stderr is the server's log.
first=$1 second=$2 ticks=$3
shift 3
exec 3<&0 4>&1 </dev/null >&2

"$@" 3<&- 4>&- &
server=$!
echo "$server" >&3

# A stopped process takes no signal but KILL until it is continued.
ask() {
    kill -s "$1" "$server"
    kill -s CONT "$server"
}

(
    exec 4>&-
    while read -r line <&3; do :; done
    ask "$first"
    for next in "$second" KILL; do
        tick=0
        while [ "$tick" -lt "$ticks" ]; do
            kill -0 "$server" || exit 0
            sleep 0.1
            tick=$((tick + 1))
        done
        ask "$next"
    done
) >/dev/null 2>&1 &

trap 'ask "$first" 2>/dev/null' TERM INT HUP
while kill -0 "$server" 2>/dev/null; do
    wait "$server"
done
# What is left of this process group: the watcher, its sleep, and this shell.
kill -s KILL 0
