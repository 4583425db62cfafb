// Package descriptors lists the protobuf messages, enums and services linked into a program, for
// tests that compare them with the project's .proto files.
package descriptors

import (
	"encoding/json"
	"io"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Package is the content of one protobuf package; nested names have their path ("ConnInfo.Knock").
type Package struct {
	// Messages has, for each field, its number and type: "int64", "repeated bytes",
	// "map<string,pluginv2.StringList>", "pluginv2.User".
	Messages map[string]map[string][2]any `json:"messages"`
	Enums    map[string]map[string]int    `json:"enums"`
	// Services has, for each method, input, output, and whether client and server stream.
	Services map[string]map[string][4]any `json:"services"`
}

// Write prints the given packages as one JSON object, keyed by package name.
func Write(out io.Writer, wanted ...string) error {
	packages := map[string]*Package{}
	for _, name := range wanted {
		packages[name] = &Package{
			Messages: map[string]map[string][2]any{},
			Enums:    map[string]map[string]int{},
			Services: map[string]map[string][4]any{},
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if found := packages[string(file.Package())]; found != nil {
			found.addMessages("", file.Messages())
			found.addEnums("", file.Enums())
			found.addServices(file.Services())
		}
		return true
	})
	return json.NewEncoder(out).Encode(packages)
}

func (p *Package) addMessages(prefix string, messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		message := messages.Get(i)
		if message.IsMapEntry() {
			continue
		}
		name := prefix + string(message.Name())
		fields := map[string][2]any{}
		for j := range message.Fields().Len() {
			field := message.Fields().Get(j)
			fields[string(field.Name())] = [2]any{int(field.Number()), typeOf(field)}
		}
		p.Messages[name] = fields
		p.addMessages(name+".", message.Messages())
		p.addEnums(name+".", message.Enums())
	}
}

func (p *Package) addEnums(prefix string, enums protoreflect.EnumDescriptors) {
	for i := range enums.Len() {
		values := map[string]int{}
		for j := range enums.Get(i).Values().Len() {
			value := enums.Get(i).Values().Get(j)
			values[string(value.Name())] = int(value.Number())
		}
		p.Enums[prefix+string(enums.Get(i).Name())] = values
	}
}

func (p *Package) addServices(services protoreflect.ServiceDescriptors) {
	for i := range services.Len() {
		methods := map[string][4]any{}
		for j := range services.Get(i).Methods().Len() {
			method := services.Get(i).Methods().Get(j)
			methods[string(method.Name())] = [4]any{
				string(method.Input().FullName()), string(method.Output().FullName()),
				method.IsStreamingClient(), method.IsStreamingServer(),
			}
		}
		p.Services[string(services.Get(i).Name())] = methods
	}
}

func typeOf(field protoreflect.FieldDescriptor) string {
	switch {
	case field.IsMap():
		return "map<" + typeOf(field.MapKey()) + "," + typeOf(field.MapValue()) + ">"
	case field.IsList():
		return "repeated " + elementType(field)
	default:
		return elementType(field)
	}
}

func elementType(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return string(field.Message().FullName())
	case protoreflect.EnumKind:
		return string(field.Enum().FullName())
	default:
		return field.Kind().String()
	}
}
