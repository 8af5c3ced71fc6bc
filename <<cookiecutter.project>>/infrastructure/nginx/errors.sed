# Makes nginx's error log what the other logs are: one JSON object a line, without what nobody should read in a log. nginx itself has
# no format for it. Lines that are not of the log (what it says before it has read its configuration) stay as they are.

# the query of an address and the page before may hold a token
s/, referrer: ".*$//
:query
s/(, (request|subrequest|upstream): "[^?]*)\?[^ ]*( HTTP\/[0-9.]+"|",|"$)/\1\3/
t query
s/(, (request|subrequest|upstream): "[^?]*)\?.*/\1/

s/[^ -~]/?/g
s/[\\"]/\\&/g

s/^([^ ]+ [^ ]+) \[warn\]/\1 [warning]/
s/^([^ ]+ [^ ]+) \[notice\]/\1 [info]/
s/^([^ ]+ [^ ]+) \[(crit|alert|emerg)\]/\1 [critical]/
s/^([0-9]{4})\/([0-9]{2})\/([0-9]{2}) ([0-9:]{8}) \[([a-z]+)\] [0-9#]+: (\*[0-9]+ )?(.*)$/{"time":"\1-\2-\3T\4+00:00","level":"\5","service":"nginx","event":"\7"}/
