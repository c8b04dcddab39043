"""Drives the local cloud with the vendor's SDKs: sdk.py PORT KEY SECRET REGION."""

import json
import sys
import time

port, key, secret, region = sys.argv[1:5]


def wait(what, look):
    deadline = time.time() + 20
    while time.time() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"not in time: {what}")


def new_sdk(algorithm):
    from alibabacloud_eci20180808 import models
    from alibabacloud_eci20180808.client import Client
    from alibabacloud_tea_openapi.models import Config

    config = Config(access_key_id=key, access_key_secret=secret, region_id=region)
    config.protocol, config.endpoint = "http", f"127.0.0.1:{port}"
    config.signature_algorithm = algorithm
    client = Client(config)
    container = models.CreateContainerGroupRequestContainer(
        name="main", image="busybox", command=["/bin/sh", "-c", "echo a+b *~(c) 中文"],
        tty=False, cpu=0.5, memory=1.0,
        environment_var=[models.CreateContainerGroupRequestContainerEnvironmentVar(key="LANG", value="中文")])
    created = client.create_container_group(models.CreateContainerGroupRequest(
        region_id=region, container_group_name="from-sdk", container=[container],
        tag=[models.CreateContainerGroupRequestTag(key="who", value="sdk")],
        client_token=f"token-{algorithm}")).body
    group_id = created.container_group_id
    describe = models.DescribeContainerGroupsRequest(
        region_id=region, container_group_ids=json.dumps([group_id]))

    def running():
        groups = client.describe_container_groups(describe).body.container_groups
        return groups and groups[0].status == "Running" and groups[0]

    group = wait("running", running)
    assert group.containers[0].commands[2] == "echo a+b *~(c) 中文", group.containers[0].commands
    assert group.containers[0].environment_vars[0].value == "中文"
    assert group.cpu == 0.5 and group.memory == 1.0, (group.cpu, group.memory)
    assert any(event.reason == "Started" for event in group.events)
    status = client.describe_container_group_status(models.DescribeContainerGroupStatusRequest(
        region_id=region, container_group_ids=json.dumps([group_id]))).body
    assert status.data[0].pod_status.phase == "Running"
    executed = client.exec_container_command(models.ExecContainerCommandRequest(
        region_id=region, container_group_id=group_id, container_name="main",
        command=json.dumps(["echo", "hi"]), sync=True, tty=False)).body
    assert "echo hi" in executed.sync_response, executed.sync_response
    client.delete_container_group(models.DeleteContainerGroupRequest(
        region_id=region, container_group_id=group_id))
    wait("gone", lambda: not client.describe_container_groups(describe).body.container_groups)
    try:
        client.exec_container_command(models.ExecContainerCommandRequest(
            region_id=region, container_group_id=group_id, container_name="main", command='["x"]'))
        raise SystemExit("exec in a deleted group was not refused")
    except Exception as error:
        assert "ContainerGroupNotFound" in str(error), error


def old_sdk():
    from aliyunsdkcore.acs_exception.exceptions import ServerException
    from aliyunsdkcore.client import AcsClient
    from aliyunsdkeci.request.v20180808 import (
        CreateContainerGroupRequest, DeleteContainerGroupRequest, DescribeContainerGroupsRequest)

    client = AcsClient(key, secret, region, port=int(port))

    def call(request, by=client):
        request.set_endpoint("127.0.0.1")
        return json.loads(by.do_action_with_exception(request))

    create = CreateContainerGroupRequest.CreateContainerGroupRequest()
    create.set_ContainerGroupName("from-old-sdk")
    create.set_Containers([{"Name": "main", "Image": "busybox"}])
    group_id = call(create)["ContainerGroupId"]

    def groups():
        describe = DescribeContainerGroupsRequest.DescribeContainerGroupsRequest()
        describe.set_ContainerGroupIds(json.dumps([group_id]))
        return call(describe)["ContainerGroups"]

    wait("running", lambda: groups()[0]["Status"] == "Running")
    delete = DeleteContainerGroupRequest.DeleteContainerGroupRequest()
    delete.set_ContainerGroupId(group_id)
    call(delete)
    wait("gone", lambda: not groups())
    try:
        call(DescribeContainerGroupsRequest.DescribeContainerGroupsRequest(),
             AcsClient(key, "wrong", region, port=int(port)))
        raise SystemExit("a wrong secret was let in")
    except ServerException as error:
        # The SDK tells a wrong secret from a wrong signature by the service's string to sign.
        assert error.get_error_code() == "InvalidAccessKeySecret", error


for name, algorithm in (("v3", "ACS3-HMAC-SHA256"), ("v1", "v2")):
    new_sdk(algorithm)
    print(f"new SDK, signature {name}: ok")
old_sdk()
print("old SDK: ok")
