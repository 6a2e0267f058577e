# Removes a run folder once nobody uses it.
#
#   sh -c THIS NAME FOLDER
#
# stdin is a pipe whose writing end the owner and the supervisors of the folder's servers hold: its end of file says that
# all of them are gone, however they went. stdout is the folder's lock, held so that no sweep comes in between.
while read -r line; do :; done
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
