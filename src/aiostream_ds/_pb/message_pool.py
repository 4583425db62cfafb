import betterproto2

default_message_pool = betterproto2.MessagePool()


def _is_pydantic(self: betterproto2.Message) -> bool:
    return "__is_pydantic_dataclass__" in type(self).__dict__


betterproto2.Message._is_pydantic = _is_pydantic
