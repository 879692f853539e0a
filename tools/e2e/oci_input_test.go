package e2e

import (
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// TestOCIInput: whatever lies in the place of a config is refused at once, and
// whatever else is read is waited for no longer than the caller wants.
func TestOCIInput(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		ok(t, oci(`mv bundle/config.json good`))
		for _, test := range []struct{ config, want string }{
			{`mkfifo bundle/config.json`, "not a regular file"},
			{`mkdir bundle/config.json`, "not a regular file"},
			{`mknod bundle/config.json c 1 5`, "not a regular file"},
			{`ln -s /dev/zero bundle/config.json`, "not a regular file"},
			{`ln -s config.json bundle/config.json`, "symbolic links"},
			{`truncate -s 1G bundle/config.json`, "larger than 64 MiB"},
			{`head -c 900 good >bundle/config.json`, "unexpected end"},
			{`: >bundle/config.json`, "unexpected end"},
			{`(printf '\357\273\277'; cat good) >bundle/config.json`, "begins with a byte order mark"},
			{`jq -c . good | sed 's/shocker/\xff/' >bundle/config.json`, "is not UTF-8"},
			{`iconv -t UTF-16 good >bundle/config.json`, "byte 0 is not UTF-8"},
			{`jq '.process.user = "root"' good >bundle/config.json`, "process.user: string: want an object"},
			{`jq '.process.args = "sh"' good >bundle/config.json`, "process.args: string: want an array"},
			{`jq -c '[.]' good >bundle/config.json`, "the document: array: want an object"},
			{`(yes '{"x":' | head -100000 | tr -d '\n'; cat good) >bundle/config.json`, "exceeded max depth"},
			{`jq '.hooks.prestart = [{path: "/bin/true", timeout: 10000000000}]' good >bundle/config.json`, "timeout 10000000000 of hook /bin/true"},
			{`mkfifo ns; jq --arg d $PWD '.linux.namespaces[0].path = $d + "/ns"' good >bundle/config.json`, "is not a"},
		} {
			r := oci(test.config + `; timeout 60 shocker-oci --root oci create -b bundle one; echo $?; rm -rf bundle/config.json ns`)
			if r.Stdout != "1\n" || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("%s: %+v; want %q", test.config, r, test.want)
			}
		}
		ok(t, oci(`cp good bundle/config.json; oci run -d -b bundle one; mkfifo fifo
			echo '{"cwd":"/","args":["echo","hello"],"env":["PATH=/bin"],"user":{}}' >p`))
		for script, want := range map[string]string{
			`cat p | shocker-oci --root oci exec -p /dev/stdin one`:                            "hello\n",
			`cat p >fifo & shocker-oci --root oci exec -p fifo one`:                            "hello\n",
			`shocker-oci --root oci exec -p fifo one & exec 8>fifo; kill $!; wait $!; echo $?`: "130\n",
		} {
			if r := oci(script); r.Stdout != want {
				t.Errorf("%s: %+v; want %q", script, r, want)
			}
		}
		ok(t, oci(`oci delete -f one`))
	})
}
