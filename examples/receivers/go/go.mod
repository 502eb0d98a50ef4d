module example.com/houdini-relay-receiver

go 1.19
