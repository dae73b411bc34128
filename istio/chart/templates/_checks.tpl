{{/* What values.schema.json cannot say, each as a sentence. Every template begins with it. */}}
{{- define "alb-oidc.check" -}}
{{- $values := .Values }}

{{- /* YAML takes these characters for the end of a line, in a quoted string, too. */}}
{{- if regexMatch "[\\x{85}\\x{feff}]|\\\\u202[89]" (toJson $values) }}
{{- fail "found a line separator (U+0085, U+2028, U+2029) or U+FEFF in the values. Remove it: it is invisible, and YAML changes it." }}
{{- end }}

{{- /* Placeholders: words in capital letters, as documentation has them. */}}
{{- $config := $values.pluginConfig }}
{{- $filled := dict "image" $values.image "gateway" $values.gateway "machineClients" $values.machineClients "pluginConfig" (pick $config "loadBalancers" "accessToken" "publicKeys" "logout") }}
{{- range $section, $value := $filled }}
{{- $found := regexFind "(^|[^A-Za-z0-9_-])(ACCOUNT|BUCKET|CLIENT|CLIENT-ID|DIGEST|DOMAIN|GATEWAY|HOST|ID|ISSUER|NAME|POOL|REGION|REGISTRY|TENANT)([^A-Za-z0-9_-]|$)" (toJson $value) }}
{{- if $found }}
{{- fail (printf "%s: found the placeholder %s. Replace it with your own value." $section (regexFind "[A-Z][A-Z-]*" $found)) }}
{{- end }}
{{- end }}

{{- /* The image. */}}
{{- $image := $values.image }}
{{- $url := required "image.url is empty: set it to the filter's image, pinned by its digest (oci://REGISTRY/REPOSITORY@sha256:DIGEST)." $image.url }}
{{- if hasPrefix "oci://" $url }}
{{- if not (regexMatch "^oci://[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9._-]+)?@sha256:[0-9a-f]{64}$" $url) }}
{{- fail (printf "image.url: found %q. Pin the image by its digest: oci://REGISTRY/REPOSITORY@sha256:DIGEST." $url) }}
{{- end }}
{{- else if hasPrefix "https://" $url }}
{{- $_ := required "image.sha256 is empty: an image.url with https:// needs the SHA-256 of the module." $image.sha256 }}
{{- else if not (hasPrefix "file:///" $url) }}
{{- fail (printf "image.url: found %q. Expected a URL that begins with oci://, https:// or file:///." $url) }}
{{- end }}

{{- /* The gateway. */}}
{{- if and $values.gateway.name $values.gateway.selector }}
{{- fail "gateway.name cannot be combined with gateway.selector: name selects a Gateway of the Gateway API, selector the pods of another gateway." }}
{{- end }}
{{- if and $values.gateway.name $values.gateway.istioGateways }}
{{- fail "gateway.istioGateways cannot be combined with gateway.name: a Gateway of the Gateway API has HTTPRoutes, which name it." }}
{{- end }}
{{- if and $values.gateway.allowPolicy (not $values.gateway.name) }}
{{- fail "gateway.allowPolicy needs gateway.name: Kubeflow has such a policy for its own gateway." }}
{{- end }}

{{- /* The load balancers. */}}
{{- if not $config.loadBalancers }}
{{- fail "pluginConfig.loadBalancers is empty: add arn, issuer and clientId of the load balancer in front of the gateway." }}
{{- end }}
{{- range $position, $loadBalancer := $config.loadBalancers }}
{{- $field := printf "pluginConfig.loadBalancers[%d]" $position }}
{{- if not (regexMatch "^arn:aws[a-z-]*:elasticloadbalancing:[a-z0-9-]{1,32}:[0-9]{12}:loadbalancer/app/[A-Za-z0-9-]{1,32}/[0-9a-f]{16}$" (toString .arn)) }}
{{- fail (printf "%s.arn: found %q. Expected the ARN of an Application Load Balancer: arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID." $field (toString .arn)) }}
{{- end }}
{{- $issuer := toString .issuer }}
{{- if and (hasPrefix "https://cognito-idp" $issuer) (not (regexMatch "^https://cognito-idp(-fips)?\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[a-z0-9-]+_[A-Za-z0-9]+$" $issuer)) }}
{{- fail (printf "%s.issuer: found %q. Expected https://cognito-idp.REGION.amazonaws.com/POOL, without a slash at the end." $field $issuer) }}
{{- end }}
{{- end }}

{{- if and (eq ($config.mode | default "enforce") "report") (not $values.acceptAnonymous) }}
{{- fail "pluginConfig.mode: report lets every request pass, without a user. Set acceptAnonymous: true to accept that, or remove mode." }}
{{- end }}

{{- /* Key servers. */}}
{{- $egress := $values.keyServers.egressGateway }}
{{- if $egress.enabled }}
{{- if or (dig "publicKeys" "cluster" "" $config) (dig "accessToken" "jwksCluster" "" $config) }}
{{- fail "keyServers.egressGateway cannot be combined with publicKeys.cluster or accessToken.jwksCluster: the chart sets them." }}
{{- end }}
{{- range include "alb-oidc.endpoints" . | fromJsonArray }}
{{- if .isService }}
{{- fail (printf "keyServers.egressGateway cannot be combined with a key server in the cluster (found %s)." .host) }}
{{- end }}
{{- end }}
{{- range $host, $ports := include "alb-oidc.keyServers" . | fromJson }}
{{- if gt (len $ports) 1 }}
{{- fail (printf "keyServers.egressGateway cannot be combined with two ports of one key server (found %s)." $host) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Routes. */}}
{{- $hosts := list }}
{{- range $position, $route := $values.routes }}
{{- $host := .host | trimPrefix "*." }}
{{- include "alb-oidc.checkHost" (dict "field" (printf "routes[%d].host" $position) "host" $host) }}
{{- if has .host $hosts }}
{{- fail (printf "routes[%d].host: found %q again. Expected each host once." $position .host) }}
{{- end }}
{{- $hosts = append $hosts .host }}
{{- end }}

{{- /* Machine clients. */}}
{{- with $values.machineClients }}
{{- if .enabled }}
{{- $host := required "machineClients.host is empty: set it to the host that the load balancer forwards without authentication." .host }}
{{- include "alb-oidc.checkHost" (dict "field" "machineClients.host" "host" $host) }}
{{- if has $host $hosts }}
{{- fail (printf "machineClients.host: found %q, which is a host of routes. The filter asks for no token there. Use another host." $host) }}
{{- end }}
{{- if not .clientIds }}
{{- fail "machineClients.clientIds is empty: list the ids of the clients that may pass." }}
{{- end }}
{{- $issuer := .issuer | default (index $config.loadBalancers 0).issuer }}
{{- $issuer = required "machineClients.issuer is empty, and the first load balancer has none: set the issuer of the access tokens." $issuer }}
{{- if not (hasPrefix "https://" (.jwksUri | default $issuer)) }}
{{- fail (printf "machineClients.jwksUri: found %q. Expected a URL that begins with https://." (.jwksUri | default $issuer)) }}
{{- end }}
{{- end }}
{{- end }}

{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.albSubnets) }}
{{- fail "networkPolicy.albSubnets is empty: list the CIDR blocks of the load balancer's subnets." }}
{{- end }}
{{- end -}}
