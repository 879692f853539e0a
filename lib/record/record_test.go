package record

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const small = `{"ociVersion":"1.0.2","x" : {"b":1,"a":[1, 2]},"annotations":{"sh.shocker.id":"ps_42045"},"big":18446744073709551615}`

func TestUntouchedKeysKeepTheirBytes(t *testing.T) {
	r, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.Line()); got != small+"\n" {
		t.Errorf("Line() = %s; want what was read", got)
	}
	if err := r.Set("/ps_42045", "linux", "cgroupsPath"); err != nil {
		t.Fatal(err)
	}
	if err := r.Set("10.0.0.2", "annotations", AnnotationAddress); err != nil {
		t.Fatal(err)
	}
	want := `{"ociVersion":"1.0.2","x":{"b":1,"a":[1, 2]},"annotations":{"sh.shocker.id":"ps_42045","sh.shocker.address":"10.0.0.2"},"big":18446744073709551615,"linux":{"cgroupsPath":"/ps_42045"}}`
	if got := string(r.Line()); got != want+"\n" {
		t.Errorf("after Set: %s; want %s", got, want)
	}
	if err := r.Delete("linux", "cgroupsPath"); err != nil {
		t.Fatal(err)
	}
	if found, err := r.Get(new(string), "linux", "cgroupsPath"); found || err != nil {
		t.Errorf("after Delete: found %v, %v", found, err)
	}
}

func TestSetRefuses(t *testing.T) {
	r, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Set(uint64(1)<<53+2, "linux", "n"); !errors.Is(err, ErrInvalid) {
		t.Errorf("Set of an integer above 2^53: %v; want ErrInvalid", err)
	}
	if err := r.Set("ps_1", "annotations", AnnotationID); !errors.Is(err, ErrInvalid) {
		t.Errorf("Set of another id: %v; want ErrInvalid", err)
	}
	if err := r.Set(1, "ociVersion", "deeper"); err == nil {
		t.Error("Set below a string succeeded")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct {
		in   string
		want error
	}{
		{``, ErrInvalid},
		{`null`, ErrInvalid},
		{`[]`, ErrInvalid},
		{`{"annotations":{"sh.shocker.id":"ps_1"}`, ErrInvalid},
		{`{}`, ErrNoID},
		{`{"annotations":null}`, ErrNoID},
		{`{"annotations":{"sh.shocker.id":7}}`, ErrInvalid},
		{`{"annotations":{"sh.shocker.id":"../x"}}`, ErrBadID},
		{`{"annotations":{"sh.shocker.id":""}}`, ErrBadID},
		{`{"annotations":{"sh.shocker.id":"a"},"annotations":{"sh.shocker.id":"b"}}`, ErrInvalid},
		{`{"annotations":{"sh.shocker.id":"a"},"x":[{"y":1,"y":2}]}`, ErrInvalid},
	} {
		if _, err := Parse([]byte(test.in)); !errors.Is(err, test.want) {
			t.Errorf("Parse(%s) = %v; want %v", test.in, err, test.want)
		}
	}
}

func TestReaderGoesOnAfterABadRecord(t *testing.T) {
	good := func(id string) string { return `{"annotations":{"sh.shocker.id":"` + id + `"}}` }
	pretty := "{\n  \"annotations\": {\n    \"sh.shocker.id\": \"c\"\n  },\n  \"x\": {\n}\n}\n"
	in := good("a") + "\n\n{\"annotations\":{\"sh.sho\n" + good("b") + "\nnonsense\n" + pretty + good("d")
	var got []string
	rd := NewReader(strings.NewReader(in))
	for {
		r, err := rd.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			got = append(got, "bad")
			continue
		}
		got = append(got, r.ID())
	}
	if want := "a bad b bad c d"; strings.Join(got, " ") != want {
		t.Errorf("read %v; want %s", got, want)
	}
}

func TestReaderOfNothing(t *testing.T) {
	for _, in := range []string{"", "\n \n"} {
		if _, err := NewReader(strings.NewReader(in)).Next(); !errors.Is(err, ErrEmpty) {
			t.Errorf("Next of %q: %v; want ErrEmpty", in, err)
		}
	}
}

func TestReaderLimitsARecord(t *testing.T) {
	in := "{" + strings.Repeat(" ", MaxSize) + "}\n" + small + "\n"
	rd := NewReader(strings.NewReader(in))
	if _, err := rd.Next(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a record above MaxSize: %v; want ErrInvalid", err)
	}
	if r, err := rd.Next(); err != nil || r.ID() != "ps_42045" {
		t.Errorf("the record after it: %v", err)
	}
}

// FuzzScan: whatever is valid JSON is read as encoding/json reads it, and
// nothing panics.
func FuzzScan(f *testing.F) {
	for _, text := range []string{
		`{"a":{"b":[1,{"c":"}\""}],"d":null}, "é\u0041" : -1.5e3 }`, `{}`, `[]`, `{"a":1,"a":2}`, `{"a":[{"x":1,"x":2}]}`, `{"a":"\\"}`, `{"a`, `{"a":9007199254740993}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := parseObject(text)
		keysErr := checkKeys(text)
		_ = checkNumbers(text)
		if !json.Valid(text) {
			return
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(text, &want) != nil || want == nil {
			if err == nil {
				t.Errorf("%q is no object, and was taken for one", text)
			}
			return
		}
		if err != nil {
			if keysErr == nil {
				t.Errorf("%q: %v, but its keys are right", text, err)
			}
			return
		}
		if len(o) != len(want) {
			t.Errorf("%q: %d members; want %d", text, len(o), len(want))
		}
		for _, m := range o {
			if string(m.value) != string(want[m.name]) {
				t.Errorf("%q: %q is %s; want %s", text, m.name, m.value, want[m.name])
			}
		}
	})
}

// TestOurs: a config goes through as it is, less what it says to other
// systems, whose types are not even looked at.
func TestOurs(t *testing.T) {
	spec := &specs.Spec{Version: "1.0.0", Hostname: "h", Process: &specs.Process{Cwd: "/"}, Linux: &specs.Linux{CgroupsPath: "/x"}}
	want, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(ours{Spec: spec}); err != nil || string(got) != string(want) {
		t.Errorf("encoded: %s, %v; want %s", got, err, want)
	}
	got, err := Decode([]byte(`{"ociVersion":"1.0.0","windows":{"layerFolders":5},"hostname":"h","process":{"cwd":"/"},"linux":{"cgroupsPath":"/x"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, spec) {
		t.Errorf("decoded: %+v; want %+v", got, spec)
	}
	all, shadows := reflect.TypeFor[specs.Spec](), reflect.TypeFor[ours]()
	for i := range all.NumField() {
		f := all.Field(i)
		platforms := f.Tag.Get("platform")
		ofOthers := platforms != "" && !strings.Contains(platforms, "linux")
		if s, ok := shadows.FieldByName(f.Name); !ok || (s.Type != f.Type) != ofOthers || s.Tag.Get("json") != f.Tag.Get("json") {
			t.Errorf("%s is for %q; in ours it is a %s, %q", f.Name, platforms, s.Type, s.Tag)
		}
	}
}

// TestDecodeWrong: what is wrong is said in the document's words, and nothing is
// replaced in silence.
func TestDecodeWrong(t *testing.T) {
	for text, want := range map[string]string{
		"\uFEFF{}":                        "it begins with a byte order mark, which JSON does not have: remove it",
		"{\"hostname\":\"\xff\"}":         "byte 13 is not UTF-8, as JSON has to be",
		`[]`:                              "the document: array: want an object",
		`{"hostname":1}`:                  "hostname: number: want a string",
		`{"mounts":{}}`:                   "mounts: object: want an array",
		`{"annotations":[]}`:              "annotations: array: want an object",
		`{"process":{"args":"x"}}`:        "process.args: string: want an array",
		`{"process":{"terminal":0}}`:      "process.terminal: number: want true or false",
		`{"process":{"user":{"uid":-1}}}`: "process.user.uid: number -1: want a number of type uint32",
		`{"linux":{"resources":{"pids":{"limit":"7"}}}}`: "linux.resources.pids.limit: string: want a number of type int64",
		`{"hostname":"a\u0000\ufffd"}`:                   "",
	} {
		got := ""
		if _, err := Decode([]byte(text)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("Decode(%q): %q; want %q", text, got, want)
		}
	}
	// A record is refused before a stage acts on it.
	text := []byte("{\"hostname\":\"\xff\",\"annotations\":{\"sh.shocker.id\":\"ps_1\"}}")
	if _, err := Parse(text); !errors.Is(err, ErrInvalid) {
		t.Errorf("Parse(%q): %v; want %v", text, err, ErrInvalid)
	}
	if _, err := Adopt(text, "ps_2"); !errors.Is(err, ErrInvalid) {
		t.Errorf("Adopt(%q): %v; want %v", text, err, ErrInvalid)
	}
}
