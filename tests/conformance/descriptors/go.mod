module conformance/descriptors

go 1.26

require google.golang.org/protobuf v1.27.1
